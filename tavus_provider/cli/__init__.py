"""
The commands of ``python -m tavus_provider`` and ``airflow tavus``: check a policy before it runs, and the
ledger afterwards.

No command deletes anything or writes to the ledger. To add a command, add it to
:data:`tavus_provider.cli.commands.COMMANDS` and write its function in the module of its group.
"""
