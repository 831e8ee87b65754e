"""Finding a contact by what somebody typed, as the daemon does it.  Pure."""

from __future__ import annotations

from collections.abc import Iterable

from tntd.control.schema import Contact
from tntd.errors import Code, CommandError


def find_contact(contacts: Iterable[Contact], who: str) -> Contact:
    """The contact with that local name, id, or unambiguous prefix of an id.

    Raises CommandError: NO_SUCH_CONTACT, AMBIGUOUS.
    """
    everybody = list(contacts)
    for contact in everybody:
        if who in (contact.name, contact.id):
            return contact
    folded = who.casefold()
    found = [contact for contact in everybody if contact.name.casefold() == folded]
    if not found:
        prefix = who.lower()
        found = [contact for contact in everybody if contact.id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError(Code.AMBIGUOUS, f"{who} fits several contacts", "give more of the id")
    names = ", ".join(contact.name for contact in everybody[:8])
    hint = f"you know: {names}" if names else "dial somebody with: connect ADDRESS"
    raise CommandError(Code.NO_SUCH_CONTACT, f"no contact {who}", hint)
