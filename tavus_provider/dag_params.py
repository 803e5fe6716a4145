"""Params that the retention DAGs share: the fields of their trigger forms, and how the forms narrow a run."""

from __future__ import annotations

from typing import Any, Final

from airflow.sdk import Param

_AGE: Final[dict[str, Any]] = {"pattern": "^[1-9][0-9]{0,4}(y|w|d|h|min)$", "minLength": 2, "maxLength": 8}
_NAMES: Final[dict[str, Any]] = {
    "type": ["null", "array"],
    "items": {"type": "string", "minLength": 1, "maxLength": 256},
    "maxItems": 100,
}
_NARROW: Final = "Narrow by name"


def retention_params(
    *,
    policy_file: str,
    older_than: str,
    dry_run: bool,
    approval: bool = False,
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
    :param batch_size: default of the field ``batch_size``, in replicas; ``None`` for a DAG without batches
    """
    params = {
        "older_than": Param(
            None if policy_file else older_than,
            type=["null", "string"] if policy_file else "string",
            title="Older than",
            description_md=f"{_what_trigger_does(dry_run=dry_run, approval=approval)}\n\n"
            "Age from which a replica has expired. **A form can only raise it**: an age below "
            f"{'that of the policy file' if policy_file else older_than} is rejected. A whole number "
            f"greater than 0 and a unit, which is years "
            "of 365 days (y), weeks (w), days (d), hours (h) or minutes (min). Example: 90d."
            + (" Leave it empty to use the policy file." if policy_file else ""),
            **_AGE,
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


def _what_trigger_does(*, dry_run: bool, approval: bool) -> str:
    if approval:
        return (
            "**Trigger makes a plan now and deletes it permanently** once a person has approved it under "
            "*Required Actions*."
        )
    return "**Trigger deletes now**" + (", unless *Dry run* is on." if dry_run else ".")
