"""Every limit in one place, units last, each with its reason."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

# -- peer frames --------------------------------------------------------------------------
FRAME_BYTES_MAX: Final = 128 * KIB  # a full envelope (64 KiB of text) and room to grow
STRANGER_FRAME_BYTES_MAX: Final = 4 * KIB  # before trust: authentication and hello fit easily
TEXT_BYTES_MAX: Final = 64 * KIB  # longer text is a file
ENVELOPE_BODY_BYTES_MAX: Final = 96 * KIB  # worst case of a text body, below a frame
NAME_BYTES_MAX: Final = 255  # a file name component on every file system we know
NAME_HINT_CHARS_MAX: Final = 64  # what a peer calls itself; fits a prompt
ADDRESSES_MAX: Final = 8  # told by a peer
TOLD_ADDRESS_CHARS_MAX: Final = 64  # each: an IPv6 address with its scope, and a port
FEATURES_MAX: Final = 32
FEATURE_CHARS_MAX: Final = 32
ERROR_TEXT_CHARS_MAX: Final = 512

# -- connections --------------------------------------------------------------------------
HANDSHAKE_BYTES_MAX: Final = 8 * KIB  # unfinished TLS; an honest flight has about 2 KiB
HANDSHAKE_TIMEOUT_S: Final = 5.0  # from accept to a checked hello; a slow link needs 2
LANE_TICKET_TIMEOUT_S: Final = 30.0  # from the agreement to the first authenticated record
STRANGERS_MAX: Final = 128  # unauthenticated connections in all
STRANGERS_PER_ADDRESS_MAX: Final = 32  # for each /32 or /64
CONTACT_RESERVE_MAX: Final = 64  # further places for addresses of contacts
HANDSHAKE_RATE_PER_S: Final = 50.0  # a handshake costs 1.7 ms: at most 9 % of a core
HANDSHAKE_BURST: Final = 200
ADDRESS_RATE_PER_S: Final = 10.0
ADDRESS_BURST: Final = 60
CONTACT_RATE_PER_S: Final = 25.0  # handshakes from addresses of contacts, beside the others
CONTACT_RESERVE_PER_ADDRESS_MAX: Final = 16  # one address cannot take the whole reserve
NETWORKS_TRACKED_MAX: Final = 4096  # /32 and /64 whose rate is remembered
ACCEPT_PAUSE_S: Final = 1.0  # no descriptor left: wait for some to be given back
CUT_SUMMARY_S: Final = 10.0  # strangers cut within it share one log line
TLS_IDLE_BYTES_MAX: Final = 64 * KIB  # of TLS without one byte of ours in it; a record has 16
PENDING_CONTACTS_MAX: Final = 100  # contact requests that wait for the user
RENEWALS_MAX: Final = 4  # of one outbox over one link; one is enough for an honest peer
PENDING_LINKS_MAX: Final = 32  # links of keys that are not accepted
LINKS_MAX: Final = 4000
KEEPALIVE_S: Final = 30.0  # silence after which a ping is sent
KEEPALIVE_STEP_S: Final = 2.0  # all pings are sent at multiples of this
KEEPALIVE_ANSWER_S: Final = 15.0  # and its answer awaited
PROBE_ANSWER_S: Final = 3.0  # after a suspend, and for the old one of two links
BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 60.0
DIAL_TIMEOUT_S: Final = 10.0  # TCP and TLS of one address
CONNECT_TIMEOUT_S: Final = 20.0  # a user's `connect`, all addresses of the name
CLOCK_JUMP_S: Final = 5.0  # further than expected: a suspend or a set clock
EXPLICIT_WINDOW_S: Final = 15 * 60.0  # how long a user's connect speaks for them

# -- outbox -------------------------------------------------------------------------------
WINDOW_ENVELOPES_MAX: Final = 256  # unacknowledged on a link
WINDOW_BYTES_MAX: Final = 1 * MIB
SENT_MARK_DELAY_S: Final = 0.05  # a message delivered sooner is never shown as merely sent
EPOCHS_KEPT_MAX: Final = 16  # for each contact; two copies of a profile have two
SEEN_IDS_MAX: Final = 65_536  # for each contact; more than any window or backup's lag

# -- the turn -----------------------------------------------------------------------------
TURN_EVENTS_MAX: Final = 64  # from one connection in one turn
TURN_BYTES_MAX: Final = 256 * KIB
LINK_BUFFER_BYTES_MAX: Final = 4 * MIB  # unsent on one link: past it the link is closed as stuck
STRANGER_BUFFER_BYTES_MAX: Final = 64 * KIB  # the same before trust: answers to pings, no more
BULK_TURNS_IN_A_ROW: Final = 8  # of one lane, while others wait

TURN_FAILED_PAUSE_S: Final = 0.1  # so that a disk that stays full does not make us spin
STORE_IDLE_S: Final = 1.0  # without a commit, before the store is told that it may tidy up

# -- lanes --------------------------------------------------------------------------------
BLOCK_BYTES: Final = 512 * KIB  # of a large file in one record, at most
RECORD_PLAIN_BYTES_MAX: Final = BLOCK_BYTES + 64  # a block and its chunk header
RANGE_S: Final = 0.125  # for which a record is to keep the way busy: progress on a slow one is seen
RANGE_BYTES_MIN: Final = 64 * KIB
RANGE_BYTES_LIMITED_MIN: Final = 8 * KIB  # below a limit, which may be of any size
RANGE_BYTES_FIRST: Final = 128 * KIB  # before a full window shows how fast the way is
PACK_PLAIN_BYTES_MAX: Final = 256 * KIB + 64  # of small files
LANE_KEY_BYTES_MAX: Final = 256 * GIB  # then a new ticket
LANE_HELLO_BYTES_MAX: Final = 1 * KIB  # from somebody who has not proved anything yet
LANE_CHUNKS_MAX: Final = 8192  # in one record: 256 KiB of empty files have about 5,000
PACK_FILE_BYTES_MAX: Final = 128 * KIB  # larger files go block by block, smaller share records
LANE_UNPACKS_MAX: Final = 4  # records with the child of the receiver before it reads on
LANE_PACKS_MAX: Final = 2  # records that the child of the sender makes ahead
FATES_MAX: Final = 16  # in one envelope, each with a path and a reason of the longest kind
# Of files that failed and are sent again, at once; the rest stays failed until these are there.
AGAIN_FILES_MAX: Final = 10_000
AGAIN_PATHS_BYTES_MAX: Final = 256 * KIB  # what one request to the child holds with ease
TREE_DEPTH_MAX: Final = 100
TREE_PATH_BYTES_MAX: Final = 4096
TREE_ENTRIES_MAX: Final = 2**32 - 1  # as a chunk counts them
TREE_FILES_KEPT_MAX: Final = 2**20  # of one transfer; of more, what became of them is counted only
TREE_BYTES_MAX: Final = 2**63 - 1  # as the store holds it
LANE_HAVE_BLOCKS_MAX: Final = 2047  # hashes in one record: 64 KiB
LANE_WINDOW_BYTES: Final = 2304 * KIB  # in flight: what a cut loses stays below 4 MiB
LANE_RESTARTS_MAX: Final = 3  # of one walk over one lane, where the folder changes meanwhile
LANE_COPIES_MAX: Final = 2  # ranges of an older copy with the child of the receiver at once
LANE_ALIVE_S: Final = 10.0  # a sign of life where the disk, not the other side, is waited for
TREE_BLOCKS_MAX: Final = 16_384  # hashes of one file: 512 KiB
TREE_BLOCK_BYTES_MIN: Final = 1 * MIB
GROWING_BLOCK_BYTES: Final = 16 * MIB  # of what has no known end: TREE_BLOCKS_MAX are 256 GiB
HASH_STEP_BYTES: Final = 64 * MIB  # for one request to the child, others get their turn between
COUNT_STEP_S: Final = 0.05
DISCARD_STEP_FILES: Final = 5_000
CLEAN_KEEP_MAX: Final = 2048  # names of 255 bytes in one request to the child: half a message
LANE_WARM_BYTES: Final = 4 * MIB  # of a cold source, read by the child ahead of the lane
LANES_MAX: Final = 64  # in each direction, whatever a user sets
LANE_IDLE_TIMEOUT_S: Final = 60.0  # no byte moved while bytes were due
UNSYNCED_STEP_BYTES: Final = 8 * MIB  # a sync is asked for after so many bytes
UNSYNCED_BYTES_MAX: Final = 32 * MIB  # of all incoming transfers together
PROGRESS_INTERVAL_S: Final = 0.1
LINK_GRACE_S: Final = 2.0  # a closing link may take this long to flush

# -- control ------------------------------------------------------------------------------
LINE_BYTES_MAX: Final = 1 * MIB
UNAUTHORISED_LINE_BYTES_MAX: Final = 4 * KIB
AUTHORISE_TIMEOUT_S: Final = 5.0
REPLY_BYTES_MAX: Final = 512 * KIB
CLIENTS_MAX: Final = 64
CLIENT_BUFFER_BYTES_MAX: Final = 4 * MIB  # replies a client asked for and does not read
EVENT_BATCH_BYTES: Final = 128 * KIB  # read from the log for one client at a time
LIST_LIMIT_DEFAULT: Final = 100
LIST_LIMIT_MAX: Final = 1000
PATHS_MAX: Final = 1000  # in one request, counted for each contact
FEEDER_TIMEOUT_S: Final = 60.0  # without a client that feeds it: a pipe is taken for broken off
TRANSFER_CONTACTS_MAX: Final = 64  # in one request
CLIENT_REF_CHARS_MAX: Final = 128

# -- store and children -------------------------------------------------------------------
EVENTS_KEPT_MAX: Final = 1_000_000
EVENTS_KEPT_S: Final = 30 * 24 * 3600
WAL_CHECKPOINT_BYTES: Final = 16 * MIB
WAL_LOOK_COMMITS: Final = 256  # between two looks at the size of the log
RESERVE_BYTES: Final = 4 * MIB  # some thousand small commits on a disk that is full
DISCARD_WAIT_FIRST_S: Final = 5.0  # until a part that could not be removed is tried again
DISCARD_WAIT_MAX_S: Final = 3600.0
PLACE_WAIT_FIRST_S: Final = 5.0  # until what arrived is put in place again, where the disk failed
PLACE_WAIT_MAX_S: Final = 300.0
ROOM_LOOK_S: Final = 5.0  # while it is full: how often we look whether there is room again
CHILD_REQUESTS_MAX: Final = 256
CHILD_DEADLINE_S: Final = 60.0
CHILD_DEATHS_MAX: Final = 5  # of one request: then it, not chance, is what kills the child
CHILD_QUICK_DEATH_S: Final = 5.0  # a child that lived shorter is started again with a back-off
CHILD_BACKOFF_FIRST_S: Final = 0.25
CHILD_BACKOFF_MAX_S: Final = 10.0
RESOLVED_MAX: Final = 16  # addresses of one host name that are worth trying
CHILD_MESSAGE_BYTES_MAX: Final = 1 * MIB  # a record of small files and what is told of them
NAME_TRIES_MAX: Final = 10_000  # numbers tried for a free final name
