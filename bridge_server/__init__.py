"""The server beside the editors: models, jobs, media, and the command line.

What is here so far is the library of models: the catalogue (`catalogue`), fetching (`downloads`)
and finding (`library`) them. See ``docs/models.md``.
"""
