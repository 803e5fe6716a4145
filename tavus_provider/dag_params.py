"""Params of the DAGs: the fields of their trigger forms, and how the forms narrow a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from airflow.sdk import Param

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import Kind
from tavus_provider.units import UNITS, pattern_below

_NAMES: Final[dict[str, Any]] = {
    "type": ["null", "array"],
    "items": {"type": "string", "minLength": 1, "maxLength": 256},
    "maxItems": 100,
}
_NARROW: Final = "Narrow by name"


def _age_pattern(lowest: str | None) -> str:
    """
    Return the pattern of the ages that the form accepts; with ``lowest``, none below it.

    Airflow shows the pattern to a person whose input does not match. So it begins with what to write; with
    the ^ behind it, this alternative never matches.
    """
    words = "a whole number and a unit (y, w, d, h, min), " + (
        f"{lowest} or more" if lowest else "such as 90d"
    )
    units = "|".join(UNITS)
    floor = re.fullmatch(f"0*([1-9][0-9]{{0,8}})({units})", lowest or "")
    refused = pattern_below(int(floor[1]) * UNITS[floor[2]][0]) if floor else ""
    return f"{words}^|^{f'(?!({refused})$)' if refused else ''}[1-9][0-9]{{0,4}}({units})$"


def retention_params(
    *,
    policy_file: str,
    older_than: str,
    dry_run: bool,
    approval: bool = False,
    scheduled: bool = False,
    batch_size: int | None = None,
) -> dict[str, Param]:
    """
    Return the params of a retention DAG, in the order in which the form shows them.

    Params without a section are in the part of the form that is open from the start.

    :param policy_file: location of the deployment's policy file, from ``[tavus] policy``; empty if it is
        not set. With a policy file the field ``older_than`` may be empty.
    :param older_than: the age in the policy of the DAG file, for runs without a policy file. The form begins
        with it, and can raise it but not lower it.
    :param dry_run: whether the form has the switch ``dry_run``
    :param approval: whether the DAG deletes permanently, after a person has approved the plan
    :param scheduled: whether the DAG has a schedule, which a trigger may start
    :param batch_size: default of the field ``batch_size``, in replicas; ``None`` for a DAG without batches
    """
    params = {
        "older_than": Param(
            None if policy_file else older_than,
            type=["null", "string"] if policy_file else "string",
            title="Older than",
            description_md=_what_trigger_does(dry_run=dry_run, approval=approval, scheduled=scheduled)
            + "\n\n"
            "Age from which a replica has expired. **A form can only raise it**: an age below "
            f"{'that of the policy file' if policy_file else older_than} is rejected. A whole number "
            f"greater than 0 and a unit, which is years "
            "of 365 days (y), weeks (w), days (d), hours (h) or minutes (min). Example: 90d."
            + (" Leave it empty to use the policy file." if policy_file else ""),
            pattern=_age_pattern(None if policy_file else older_than),
            maxLength=8,
        ),
        "include": Param(
            [],
            section=_NARROW,
            title="Only these names",
            description="Name patterns such as spring-*, one per line. Empty: every name that the policy "
            "allows.",
            **_NAMES,
        ),
        "exclude": Param(
            [],
            section=_NARROW,
            title="Except these names",
            description="Name patterns such as vip_*, one per line. Replicas that match are kept.",
            **_NAMES,
        ),
    }
    if dry_run:
        params["dry_run"] = Param(
            False,
            type="boolean",
            title="Dry run",
            description="Make the same plan and show what would be deleted and why, but delete nothing.",
        )
    if batch_size is not None:
        params["batch_size"] = Param(
            batch_size,
            type="integer",
            minimum=1,
            maximum=100_000,
            title="Batch size",
            description="Maximum number of replicas in a batch; it is raised if there would be more than "
            "1,000 batches. Each batch reads the whole account again, so large batches cost less.",
        )
    return params


def accounts_param(connections: Sequence[str]) -> Param:
    """
    Return the param with the accounts of a run: all of a DAG file, or some of them.

    :param connections: ids of the Airflow connections in the DAG file; a form cannot add others
    :raises TavusValidationError: if it is empty
    """
    _require_connections(connections)
    return Param(
        list(connections),
        type="array",
        items={"type": "string", "enum": list(connections)},
        examples=list(connections),
        minItems=1,
        maxItems=len(connections),
        uniqueItems=True,
        title="Accounts",
        description="Ids of the Airflow connections, one for each account. Leave some out to run for the "
        "others.",
    )


def _require_connections(connections: Sequence[str]) -> None:
    if not connections:
        raise TavusValidationError(
            "connections: the list is empty; put the id of at least one Airflow connection, such as "
            "tavus_default, into CONNECTIONS in the DAG file"
        )


def narrow_from_params() -> dict[str, str]:
    """
    Return the templates that hand the form's fields to the ``narrow`` argument of ``PlanRetentionOperator``.

    A form can only narrow a run: a replica must match the policy and the form to be deleted.
    """
    return {
        "include": "{{ params.include or [] }}",
        "exclude": "{{ params.exclude or [] }}",
        "older_than": "{{ params.older_than }}",
    }


def _what_trigger_does(*, dry_run: bool, approval: bool, scheduled: bool) -> str:
    if approval:
        return (
            "**Trigger makes a plan now and deletes it permanently** once a person has approved it under "
            "*Required Actions*."
        )
    what = "**Trigger deletes now**" + (", unless *Dry run* is on." if dry_run else ".")
    if scheduled:
        what += (
            " If the DAG is paused and *Unpause ... on trigger* is on, as it is at first, it also deletes on "
            "its schedule from then on."
        )
    return what


_ID_LIST: Final[dict[str, Any]] = {
    "type": ["null", "array"],
    "items": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{1,63}$"},
}
_DATE: Final[dict[str, Any]] = {"pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "maxLength": 10}
_MORE: Final = "Dates and kinds"
_KINDS: Final = [kind.value for kind in Kind]


def erasure_params(connections: Sequence[str]) -> dict[str, Param]:
    """
    Return the params of the DAG that erases a person, in the order in which the form shows them.

    :param connections: ids of the Airflow connections in the DAG file, one for each account; the form begins
        with the first, and cannot name others
    :raises TavusValidationError: if it is empty
    """
    _require_connections(connections)
    place: dict[str, Any] = {} if len(connections) > 1 else {"section": _MORE}
    account = Param(
        connections[0],
        type="string",
        enum=list(connections),
        title="Account",
        description="Id of the Airflow connection. If the person is in several accounts, trigger one run for "
        "each, with the same reference.",
        **place,
    )
    return {
        "request": Param(
            "",
            type="string",
            pattern="^(?=.*[0-9])[A-Za-z0-9][A-Za-z0-9._-]{2,63}$",
            minLength=3,
            maxLength=64,
            title="Reference of the request",
            description_md="**Trigger reads the account now; nothing is deleted before a person approves "
            "it** under *Required Actions*.\n\n"
            "A reference such as DSR-2026-0142, with at least one digit. **No name and no e-mail address:** "
            "Airflow stores this field, and it appears in logs and on the certificate.",
        ),
        "received_on": Param(
            "",
            type="string",
            format="date",
            title="Received on",
            description="Date on which the request was received, for example 2026-11-28.",
            **_DATE,
        ),
        "ground": Param(
            "request",
            type="string",
            enum=["request", "consent_withdrawn", "purpose_met", "unlawful", "ccpa", "bipa"],
            values_display={
                "request": "The person asked for it (GDPR)",
                "consent_withdrawn": "Consent was withdrawn (GDPR)",
                "purpose_met": "The data are no longer needed (GDPR)",
                "unlawful": "The data were processed unlawfully (GDPR)",
                "ccpa": "CCPA",
                "bipa": "BIPA",
            },
            title="Ground",
            description="Why the data must be erased. It is on the approval page and on the certificate.",
        ),
        **({"account": account} if len(connections) > 1 else {}),
        "replica_ids": Param(
            [],
            title="Replicas of the person",
            description_md="Ids of replicas that **show this person**, one per line. All videos and "
            "conversations made with them are deleted too, also what other people said there.",
            maxItems=100,
            **_ID_LIST,
        ),
        "conversation_ids": Param(
            [],
            title="Conversations with the person",
            description="Ids of conversations in which the person took part, one per line. They are deleted "
            "with transcript and analysis; the replica that the person talked to stays.",
            maxItems=10_000,
            **_ID_LIST,
        ),
        "video_ids": Param(
            [],
            title="Videos of the person",
            description="Ids of videos, one per line. Videos made with one of the replicas above need not be "
            "named.",
            maxItems=10_000,
            **_ID_LIST,
        ),
        "due_on": Param(
            None,
            type=["null", "string"],
            format="date",
            section=_MORE,
            title="Due on",
            description="Date until which the request must be answered. Empty: one calendar month after it "
            "was received.",
            **_DATE,
        ),
        "kinds": Param(
            _KINDS,
            type="array",
            items={"type": "string", "enum": _KINDS},
            examples=_KINDS,
            minItems=1,
            maxItems=len(_KINDS),
            section=_MORE,
            title="Kinds to erase",
            description="What is deleted. The certificate says which kinds the request did not name.",
        ),
        **({} if len(connections) > 1 else {"account": account}),
    }
