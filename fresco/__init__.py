"""FRESCO: zero-shot video translation guided by the clip's own correspondence (CVPR 2024).

The method only: it knows tensors, diffusers models and OpenCV, and neither servers nor video files.
Images are float RGB in [0, 1], N C H W, at every border. See ``docs/method.md`` for the map from
the paper's sections to the modules.
"""
