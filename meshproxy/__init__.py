"""The data plane and the command line of meshproxy."""

__version__ = "0.1.0"

from meshproxy import pure

pure.install()
