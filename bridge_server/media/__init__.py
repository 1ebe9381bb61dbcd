"""Clips in and out of files: probe, decode, convert colours, encode, and verify what was written.

The one package that knows video containers (PyAV) and image sequences (OpenImageIO). See
``docs/media.md``.
"""
