"""The part of Linkerd's public proxy API that the stub speaks (*.proto) and the code generated from it (`make proto`)."""
