"""The run directory: what is on disk, who may write it, and when it counts.

A shard is a directory and committing is renaming it; everything in this room follows from that.
"""
