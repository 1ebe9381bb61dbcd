"""The panel: jobs, their keyframes and what they made, in a window of its own.

    words, effect, standing → starter → line (the client's thread) → models (no widgets)
        → widgets → app

It speaks to the server as any editor does, through `host_plugins.link`, and imports nothing else of
ours: no cv2 must be in its process, whose own Qt plugins stop PySide6 from opening windows.
"""
