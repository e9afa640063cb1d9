"""HPACK, header compression for HTTP/2 (RFC 7541).

block bytes --Decoder.decode()--> [Field, ...]      raises HpackError: the connection is lost (COMPRESSION_ERROR)
Head        --Encoder.head()----> block bytes

huffman.py   Appendix B: the code and its decoder
static.py    Appendix A: the static table, as Fields
integers.py  5.1: prefixed integers
decoder.py   the decoder and its dynamic table
encoder.py   the encoder, its dynamic table, and what it never indexes
"""

from meshproxy.wire.hpack.decoder import Decoder
from meshproxy.wire.hpack.encoder import Encoder
from meshproxy.wire.hpack.integers import HpackError

__all__ = ["Decoder", "Encoder", "HpackError"]
