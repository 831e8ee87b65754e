"""Bytes from nowhere, given to everything that reads bytes: see README.md beside this file."""
