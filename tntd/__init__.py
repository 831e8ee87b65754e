"""TalknTransfer's daemon: one thread, one loop, one durable outbox for each contact."""

__version__ = "1.0.0"
