"""What users and scripts ask for of files: `transfers.*` and `settings.*` (see commands.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePath
from typing import cast
from urllib.parse import unquote_to_bytes

import msgspec

from tntd import limits
from tntd.control import schema
from tntd.control.schema import Params
from tntd.errors import Code, CommandError
from tntd.machines.naming import show_path
from tntd.node.commands import PENDING, Handler, Reply
from tntd.node.contacts import Contacts
from tntd.node.core import Core
from tntd.node.parts import Cleaning, Parts
from tntd.node.preferences import Preferences
from tntd.node.queue import Queue
from tntd.store.contacts import ContactRow
from tntd.store.transfers import TransferRow
from tntd.store.trees import FileRow

_json = msgspec.json.Encoder()
PROBLEMS_SHOWN_MAX = 50  # folders that could not be looked at; paths may be long
FILE_SHOWN_BYTES = 256  # a file in a reply, beside its path and reason


class FileCommands:
    """`transfers.*`."""

    def __init__(
        self, core: Core, contacts: Contacts, queue: Queue, preferences: Preferences
    ) -> None:
        self._core = core
        self._contacts = contacts
        self._queue = queue
        self._preferences = preferences
        self._rows = core.store.transfers

    def table(self) -> dict[str, Handler]:
        """Method names and their handlers."""
        queue = self._queue
        return {
            "transfers.send": self._send,
            "transfers.grown": self._grown,
            "transfers.list": self._list,
            "transfers.files": self._files,
            "transfers.accept": self._accept,
            "transfers.decline": self._on_row(queue.incoming.decline),
            "transfers.cancel": self._on_row(queue.cancel),
            "transfers.pause": self._on_row(queue.steering.pause),
            "transfers.resume": self._on_row(queue.steering.resume),
            "transfers.first": self._on_row(queue.steering.first),
            "transfers.again": self._again,
            "transfers.clean": self._clean,
        }

    def _on_row(self, act: Callable[[TransferRow], TransferRow]) -> Handler:
        def handle(params: Params, _reply: Reply) -> object:
            return self._result(act(self._row(params)))

        return handle

    def _accept(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.AcceptTransferParams)
        folder = None if params.folder is None else exact_path(params.folder)
        return self._result(self._queue.incoming.accept(self._row(params), folder))

    def _row(self, params: Params) -> TransferRow:
        assert isinstance(
            params, schema.TransferParams | schema.AcceptTransferParams | schema.ListFilesParams
        )
        return self._queue.transfers.find(params.transfer)

    def _result(self, row: TransferRow) -> schema.TransferResult:
        return schema.TransferResult(transfer=self._queue.transfers.show(row))

    def _shown(self, rows: list[TransferRow]) -> schema.TransferList:
        return schema.TransferList(transfers=[self._queue.transfers.show(row) for row in rows])

    def _send(self, params: Params, reply: Reply) -> object:
        assert isinstance(params, schema.SendTransferParams)
        names = [params.to] if isinstance(params.to, str) else params.to
        contacts = [self._contacts.find(name) for name in dict.fromkeys(names)]
        paths = [exact_path(each) for each in params.paths]
        if len(contacts) * len(paths) > limits.PATHS_MAX:
            count = f"{len(contacts)} contacts and {len(paths)} paths"
            hint = f"at most {limits.PATHS_MAX} transfers at a time; send some of them first"
            raise CommandError(Code.LIMIT, f"{count} are too many for one send", hint)

        def done(outcome: list[TransferRow] | CommandError) -> None:
            reply(outcome if isinstance(outcome, CommandError) else self._shown(outcome))

        ref = params.client_ref
        known = None if ref is None else self._core.store.get_client_ref("transfers", ref)
        if known is not None:
            rows = [self._rows.get(number) for number in known]
            return self._shown([row for row in rows if row is not None])
        to = list(dict.fromkeys(contacts))
        self._queue.sending.send(to, paths, ref, done, growing=params.growing)
        return PENDING

    def _grown(self, params: Params, reply: Reply) -> object:
        assert isinstance(params, schema.GrownParams)
        growing = self._queue.growing
        rows = self._those_left(params.transfers)
        if not params.end:
            growing.grown(rows, params.bytes)
            return self._shown([self._queue.transfers.fresh(row) for row in rows])

        def done(problem: CommandError | None) -> None:
            now = [row for each in rows if (row := self._rows.get(each.row)) is not None]
            reply(problem or self._shown(now))

        growing.ended(rows, params.bytes, done)
        return PENDING

    def _those_left(self, ids: list[str]) -> list[TransferRow]:
        """Those of several transfers whose contact was not removed meanwhile; one at least."""
        rows: list[TransferRow] = []
        for position, id in enumerate(ids, 1):
            try:
                rows.append(self._queue.transfers.find(id))
            except CommandError:
                if position == len(ids) and not rows:
                    raise
        return rows

    def _list(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.ListTransfersParams)
        find = self._queue.transfers.find
        before = None if params.before is None else find(params.before).row
        after = None if params.after is None else find(params.after).row
        rows = self._rows.page(params.state, params.limit, before, after)
        return self._fitting(rows, from_start=params.after is not None)

    def _fitting(self, rows: list[TransferRow], *, from_start: bool) -> schema.TransferList:
        """As many of a page as fit into one reply: the first ones, or the last ones."""
        kept: list[schema.Transfer] = []
        room = limits.REPLY_BYTES_MAX
        for row in rows if from_start else reversed(rows):
            shown = self._queue.transfers.show(row)
            room -= len(_json.encode(shown)) + 1
            if kept and room < 0:
                break
            kept.append(shown)
        return schema.TransferList(transfers=kept if from_start else kept[::-1])

    # -- one by one --------------------------------------------------------------------

    def _files(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.ListFilesParams)
        row = self._row(params)
        after = None if params.after is None else tree_path(params.after)
        if not row.tree:
            return schema.FileList(files=[] if after is not None else [_only_file(row)])
        files: list[schema.TransferFile] = []
        room = limits.REPLY_BYTES_MAX
        for each in self._core.store.trees.page(row.row, after, params.limit):
            state = _shown_state(row, each.state)
            reason = each.reason or (_why_not(row) if state == "failed" else "")
            # JSON writes at worst six characters for one byte, and odd paths are shown twice.
            room -= FILE_SHOWN_BYTES + 12 * len(each.path) + 6 * len(reason)
            if files and room < 0:
                break
            files.append(_file(replace(each, state=state, reason=reason)))
        return schema.FileList(files=files)

    def _again(self, params: Params, reply: Reply) -> object:
        def done(outcome: list[TransferRow] | CommandError) -> None:
            reply(outcome if isinstance(outcome, CommandError) else self._result(outcome[0]))

        self._queue.steering.again(self._row(params), done)
        return PENDING

    # -- what is left over -------------------------------------------------------------

    def _clean(self, _params: Params, reply: Reply) -> object:
        folders = dict.fromkeys([self._core.profile.downloads, *self._rows.folders()])

        def done(cleaning: Cleaning) -> None:
            some = cleaning.problems[:PROBLEMS_SHOWN_MAX]
            problems = [f"{show_path(folder)[0]}: {text}" for folder, text in some]
            reply(schema.Cleaned(removed=cleaning.files, bytes=cleaning.bytes, problems=problems))

        self._queue.parts.clean(list(folders), done)
        return PENDING


class SettingCommands:
    """`settings.*`."""

    def __init__(
        self,
        core: Core,
        contacts: Contacts,
        parts: Parts,
        preferences: Preferences,
        changed: Callable[[], None],
    ) -> None:
        self._core = core
        self._parts = parts
        self._contacts = contacts
        self._preferences = preferences
        self._changed = changed

    def table(self) -> dict[str, Handler]:
        """Method names and their handlers."""
        return {"settings.list": self._list, "settings.set": self._set}

    def _list(self, params: Params, _reply: Reply) -> object:
        assert isinstance(params, schema.ListSettingsParams)
        contact = None if params.contact is None else self._contacts.find(params.contact)
        return schema.SettingList(settings=self._preferences.list(contact))

    def _set(self, params: Params, reply: Reply) -> object:
        assert isinstance(params, schema.SetSettingParams)
        contact = None if params.contact is None else self._contacts.find(params.contact)
        value: object = params.value
        if isinstance(params.value, schema.PathBytes):
            value = unquote_to_bytes(params.value.path_bytes)
        folder = self._preferences.folder(params.name, value, contact)
        if folder is None:
            return self._store(params.name, value, contact)

        def tried(problem: str) -> None:
            there = None if contact is None else self._core.store.contacts.get(contact.row)
            if problem:
                text = f"{show_path(folder)[0]}: {problem}"
                hint = "give a folder that you may write to"
                reply(CommandError(Code.PATH, f"files cannot arrive in {text}", hint))
            elif contact is not None and there is None:
                reply(CommandError(Code.NO_SUCH_CONTACT, "the contact was removed", ""))
            else:
                reply(self._store(params.name, folder, there))

        self._parts.try_folder(folder, tried)
        return PENDING

    def _store(self, name: str, value: object, contact: ContactRow | None) -> schema.Setting:
        setting = self._preferences.set(name, value, contact)
        self._changed()
        return setting


def _shown_state(transfer: TransferRow, state: str) -> str:
    """What a stored state means to users."""
    if _came_to_nothing(transfer):
        return "skipped" if state == "skipped" else "failed"
    if state == "again":
        return "failed" if transfer.state == "failed" else "waiting"
    if state == "waiting":
        return "verified" if transfer.state in ("done", "failed") else "active"
    return state


def _came_to_nothing(row: TransferRow) -> bool:
    """Whether it ended with nothing of it in its place, whatever had arrived of it."""
    if row.again or row.state == "done" or not row.ended:
        return False
    return row.state != "failed" or not (row.failed or row.failed_beyond)


def _why_not(row: TransferRow) -> str:
    return row.error or (f"the transfer was {row.state}" if row.state != "failed" else "")


def _only_file(row: TransferRow) -> schema.TransferFile:
    states = {"done": "verified", "active": "active"}
    state = "failed" if row.ended and row.state != "done" else states.get(row.state, "waiting")
    reason = _why_not(row) if state == "failed" else ""
    return _file(FileRow(row.name, row.size, state, reason))


def _file(row: FileRow) -> schema.TransferFile:
    shown, exact = show_path(row.path)
    return schema.TransferFile(
        path=shown,
        path_bytes=exact,
        size=row.size,
        state=cast(schema.FileState, row.state),
        reason=row.reason or None,
    )


def tree_path(given: str | schema.PathBytes) -> bytes:
    """The bytes of a path below a folder that is sent."""
    if isinstance(given, schema.PathBytes):
        return unquote_to_bytes(given.path_bytes)
    return given.encode("utf-8", "surrogateescape")


def exact_path(given: str | schema.PathBytes) -> bytes:
    """The bytes of an absolute path, with slashes on Windows, too.  Raises CommandError(PATH)."""
    path = tree_path(given)
    text = path.decode("utf-8", "surrogateescape")
    if b"\0" in path or not PurePath(text).is_absolute():
        raise CommandError(
            Code.PATH, f"not an absolute path: {text[:200]!r}", "give the whole path, from the root"
        )
    return PurePath(text).as_posix().encode("utf-8", "surrogateescape")
