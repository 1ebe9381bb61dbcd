# Blender ships no types: what comes out of it is Any where it enters our code.
from typing import Any

def __getattr__(name: str) -> Any: ...
