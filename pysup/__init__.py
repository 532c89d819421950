"""A Linux process supervisor."""

from pysup._core import ffi, lib

__all__ = ["__version__"]

__version__: str = ffi.string(lib.psup_version()).decode()
