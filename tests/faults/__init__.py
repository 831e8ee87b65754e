"""Faults on real daemons: a bad network, a bad disk, and strangers in crowds."""
