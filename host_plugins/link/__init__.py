"""How a program speaks to the bridge: the leaf that every plugin carries a copy of.

The standard library, pyzmq and msgpack only, and only relative imports: the folder works wherever
it is copied to. The protocol itself is `bridge_server/PROTOCOL.md`.
"""
