"""What `doctor` looks at, an area per module.

Each probe is a function that yields findings. What a machine is like is handed to it, so that every
branch can be tested on any machine; the facts of this one are its default arguments or come from a
function beside it.
"""
