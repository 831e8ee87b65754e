"""Whole daemons in one process, on one heap of time, all from one seed; see README.md."""
