"""
The description of this provider for Airflow: connection form, configuration options, links.

Airflow calls it during ``import airflow.sdk``, so this module must not import anything heavy.
"""

from __future__ import annotations

from tavus_provider import __version__


def get_provider_info() -> dict[str, object]:
    """Return the provider description that the entry point ``apache_airflow_provider`` points to."""
    return {
        "package-name": "airflow-provider-tavus",
        "name": "Tavus",
        "description": "Delete Tavus replicas manually, on a schedule, or by a retention policy.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": "Tavus",
                "external-doc-url": "https://docs.tavus.io/",
                "tags": ["service"],
            }
        ],
        "hooks": [{"integration-name": "Tavus", "python-modules": ["tavus_provider.hooks.tavus"]}],
        "operators": [{"integration-name": "Tavus", "python-modules": ["tavus_provider.operators.tavus"]}],
        "connection-types": [
            {
                "connection-type": "tavus",
                "hook-class-name": "tavus_provider.hooks.tavus.TavusHook",
                "hook-name": "Tavus",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "login", "port", "extra"],
                    "relabeling": {"host": "Base URL", "password": "API key"},
                    "placeholders": {
                        "host": "https://tavusapi.com",
                        "password": "API key from the Tavus portal",
                    },
                },
                "conn-fields": {
                    "timeout": {
                        "label": "Timeout (seconds)",
                        "description": "Total time per request in seconds (1 to 600). Default: 30.",
                        "schema": {"type": ["number", "null"], "minimum": 1, "maximum": 600},
                    },
                    "concurrency": {
                        "label": "Concurrency",
                        "description": "Maximum number of requests in progress at the same time (1 to 64). "
                        "Default: 8.",
                        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 64},
                    },
                    "requests_per_second": {
                        "label": "Requests per second",
                        "description": "Maximum request rate of one task (0.1 to 1000). Default: no limit.",
                        "schema": {"type": ["number", "null"], "minimum": 0.1, "maximum": 1000},
                    },
                },
            }
        ],
        # Airflow 3.2 and later; earlier ones ignore it.
        "cli": ["tavus_provider.cli.definition.get_commands"],
        "notifications": ["tavus_provider.notifications.tavus.TavusNotifier"],
        "extra-links": [
            "tavus_provider.links.tavus.TavusPageLink",
            "tavus_provider.links.tavus.ReplicaLibraryLink",
        ],
        "config": {
            "tavus": {
                "description": "Settings of the Tavus provider that connections and DAGs cannot override.",
                "options": {
                    "allowed_origins": {
                        "description": "Comma-separated base URLs that the API key may be sent to. A "
                        "connection with any other base URL is rejected.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://tavusapi.com,http://127.0.0.1:8600",
                        "default": "https://tavusapi.com",
                    },
                    "proxy": {
                        "description": "URL of the proxy for requests to Tavus. Environment variables such "
                        "as HTTPS_PROXY are ignored.",
                        "version_added": "0.1.0",
                        "sensitive": True,
                        "type": "string",
                        "example": "http://proxy.example:3128",
                        "default": "",
                    },
                    "ca_bundle": {
                        "description": "Path of a PEM file with the CA certificates to trust instead of the "
                        "default ones.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/ssl/company.pem",
                        "default": "",
                    },
                    "policy": {
                        "description": "YAML or JSON file with the retention policy that the prune and purge "
                        "DAGs use instead of their own. A local path or an object storage path.",
                        "version_added": "0.1.0",
                        "sensitive": True,
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/retention.yaml",
                        "default": "",
                    },
                    "legal_holds": {
                        "description": "YAML or JSON file with the ids under legal hold. It binds every "
                        "operator, whatever policy it was given. A local path or an object storage path.",
                        "version_added": "0.1.0",
                        "sensitive": True,
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/legal-holds.json",
                        "default": "",
                    },
                    "legal_holds_max_age": {
                        "description": "Maximum age of that file. If it is older or cannot be read, nothing "
                        "is deleted.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "1d",
                        "default": "7d",
                    },
                    "ledger": {
                        "description": "Folder for the records of deletes and approvals, and for plans "
                        "(subfolder _plans). A local path or an object storage path. "
                        "Default: tavus-ledger in AIRFLOW_HOME.",
                        "version_added": "0.1.0",
                        "sensitive": True,
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/tavus-ledger",
                        "default": "",
                    },
                    "ledger_is_shared": {
                        "description": "Whether all workers share the ledger although it is a local path, "
                        "for example on NFS. Set it only if they do: with a ledger of its own, a worker "
                        "does not know what others deleted.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "True",
                        "default": "False",
                    },
                    "portal": {
                        "description": "URL of the replica list in the Tavus portal, for the link on each "
                        "task. Default: https://platform.tavus.io/dev/replicas. The example is the URL in "
                        "the newer portal.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://maker.tavus.io/dev/faces",
                        "default": "",
                    },
                    "approvers": {
                        "description": "Comma-separated ids of the users who may approve a permanent delete. "
                        "For the SimpleAuthManager an id is the user name, for FAB the number in 'airflow "
                        "users list'. Other users get 403, with their id in the message. "
                        "Default: every user who may respond to the task in Airflow.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "alice,bob",
                        "default": "",
                    },
                    "approver_must_differ": {
                        "description": "Whether the user who triggered a run may not approve its permanent "
                        "deletes. Runs that were triggered by an unknown user are then rejected.",
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": "True",
                        "default": "False",
                    },
                    "closed_erasures": {
                        "description": "Comma-separated requests for erasures that ended "
                        "without a complete certificate: withdrawn, answered otherwise, or confirmed by "
                        "Tavus. An entry is connection_id/reference, or a reference alone, which ends the "
                        "request in all accounts. These requests are no longer watched, and prune and "
                        "purge may delete their replicas.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "tavus_default/DSR-2026-0142,DSR-2026-0150",
                        "default": "",
                    },
                },
            }
        },
    }
