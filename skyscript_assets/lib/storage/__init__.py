"""Where outputs lie: immutable versions, what names the current one, what is left over."""

from skyscript_assets.lib.storage.records import SCHEMA_VERSION, Head, OutputKey, OutputRecord
from skyscript_assets.lib.storage.store import Heads, Store

__all__ = ["SCHEMA_VERSION", "Head", "Heads", "OutputKey", "OutputRecord", "Store"]
