"""The node: routes events to machines and store, and answers with effects.

Its parts stand in one order, and each knows only those before it: core, journal, present, contacts,
mail, chat, transfers (incoming, outgoing), links (dialling, pairs), commands, clients, node.
"""

from tntd.node.node import Node

__all__ = ["Node"]
