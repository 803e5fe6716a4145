"""A Tavus server on 127.0.0.1 for the demo, for rehearsals and for tests.

It imports nothing else of this package, so that it is an independent record of what a client requested and
of what was deleted. From a shell::

    python -m tavus_provider.sandbox --port 8600 --seed FILE --key sandbox

In a test, as many at the same time as needed::

    with Sandbox({"replicas": [{"replica_id": "r1", "age": "200d"}]}) as tavus:
        tavus.switch(delete_status=204)
        requests.delete(f"{tavus.url}/v2/replicas/r1", headers={"x-api-key": tavus.key})
        assert tavus.state()["deletes"] == [{"replica_id": "r1", "hard": False}]

**Seed.** JSON or YAML with the lists `replicas`, `personas`, `conversations` and `videos`. Each row has the
id of its resource. `age` and `updated` are ages at the start of the sandbox (`90d`, `36h`, `15m`; a negative
age such as `-2d` is in the future); `created_at` and `updated_at` are sent exactly as written. A field that a
row omits is missing in responses, a field that is null is sent as null. `replica_type` can be any text; the
filter `user` lists every type that starts with `user`. `"deleted": "soft"` or `"hard"` makes a row deleted
from the start. Without a seed, the rows are those of `builtin_seed()`.

**Control requests**, without a key:

======  =====================  ==========================================================================
GET     /_sandbox/state        all rows, including deleted ones, the requests, the deletes, the switches
POST    /_sandbox/switches     set some switches
POST    /_sandbox/replicas     add a row or a list of rows as in a seed, or change the given fields of
                               existing rows; also /personas, /conversations, /videos
POST    /_sandbox/reset        restore the rows and switches of the start, clear the request log
======  =====================  ==========================================================================

**Switches.** The first value is the default:

==============  ===========================================  =============================================
delete_status   200, 204, "swapped"                          status of a successful delete, and of a rename;
                                                             200 is 204 for conversations, and "swapped" is
                                                             204 for all but conversations
unknown_id      "400-error", "400-message", "404"            response for an unknown or deleted id
soft_deleted    "hidden", "listed"                           whether soft-deleted replicas can be read
soft_items      "videos", "none", "conversations", "all"     which soft-deleted videos and conversations can
                                                             be read; videos have the status `deleted`
soft_then_hard  "failed", "works"                            result of a hard delete after a soft delete
cascade         "none", "videos", "conversations", "all"     what a hard delete of a replica also deletes
replica_id      "kept", "null"                               that of videos and conversations whose replica
                                                             was deleted
delete_active   "works", "ends", "rejected"                  delete of an active conversation: it goes on
                                                             unseen, or ends, or is not deleted
end_ended       "works", "rejected", "unknown"               end of a conversation that has ended: 200, 400,
                                                             or as for an unknown id
dates           "iso", "iso-ms", "iso-seconds", "offset",    format of dates that came from an age; "blank"
                "rfc1123", "blank", "utc", "naive",          is 2025-01-01 10:00:00+00, "utc" the same with
                "epoch", "null"                              UTC; "null" sends null for all dates
nulls           "null", "empty"                              "empty" sends "" for fields that are null or
                                                             missing
json            "plain", "bom", "nan", "huge", "duplicate"   lists begin with a byte order mark, or each row
                                                             has a field `odd` that is NaN, has 5,000 digits
                                                             or occurs twice
odd_rows        {}                                           rows to send at the end of lists exactly as they
                                                             are, such as {"replicas": [null]}; they count
vocabulary      "replica", "face", "both"                    field names of responses; /v2/faces and
                                                             /v2/pals always use face and PAL
clamp_limit     null, 1 to 100                               maximum page size; null means 100
max_limit       null, 1 to 100                               above it, `limit` is refused with status 400
total_count     "right", "missing", "high", "page"           "high" is three more than there are; "page" is
                                                             the number of rows on the page
status_filter   "works", "ignored", "rejected"               the parameter `status` of conversations;
                                                             "rejected" answers it with status 400
order           "oldest", "newest"                           order of conversations: as in the seed, or the
                                                             other way round
latency         0, up to 600                                 seconds before every response
list_lag        0, up to 600                                 seconds for which lists still show a deleted
                                                             row; a GET of it does not
unlisted        []                                           ids of replicas that lists leave out although
                                                             they exist
encoding        "identity", "gzip", "deflate",               encoding of all bodies; "raw-deflate" has no
                "raw-deflate", "not-gzip"                    header, "not-gzip" is not what it says
interim         null, 100, 102, 103                          status of an interim response before each one
headers         {}                                           headers to add to all responses, such as
                                                             {"Date": "...", "Age": "900"}
faults          []                                           errors to send, see below
==============  ===========================================  =============================================

**Faults.** A list; a request gets the first fault that matches it. A fault is removed after `times` requests
(default 1; null means never).

- `method` and `path` select requests; `path` is a prefix or a regular expression. Omitted, they match all.
- `when`: `"before"` (default; the request has no effect) or `"after"` the effect. 429 must be `"before"`.
- `status`: send this status, with `body` (text), `html` (true for an HTML page), `retry_after`, `headers`.
  Without `body`, 401 and 403 have a `message` as those of Tavus, so they are about the API key.
- `close`: close the connection without a response.
- `delay`: wait this many seconds first; on its own, it delays the real response.

**State.** Rows have the field names of a seed, with `deleted` (null, "soft" or "hard"). `deletes` lists the
deletes of replicas in their order. `requests` lists the API requests with `n`, `at` (seconds since the
start), `in_flight` (number of requests being answered, including this one), `method`, `path`, `query`,
`status` (null if no response was sent), `key_ok`, `user_agent` and `effect` (null, "soft", "hard", "created",
"renamed" or "ended"). The last 100,000 requests are kept. The API key is replaced by `***` in them.
"""

from tavus_provider.sandbox.faults import SwitchError
from tavus_provider.sandbox.seeds import HOSTILE_NAME, builtin_seed, read_seed
from tavus_provider.sandbox.server import Sandbox
from tavus_provider.sandbox.world import SeedError

__all__ = ["HOSTILE_NAME", "Sandbox", "SeedError", "SwitchError", "builtin_seed", "read_seed"]
