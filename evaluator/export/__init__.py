"""Runs for others: tables for spreadsheets and SQL, files for the hub, runs for trackers.

One module a target; what they share is what a run says, in `tidy` (tables) and `tracked` (runs of
trackers). What is optional is imported where it is used, and `extras` says how it is installed.
"""
