"""What Airflow registers of this provider. Airflow calls it inside ``import airflow.sdk``: import nothing heavy here."""

from __future__ import annotations

from tavus_provider import __version__


def get_provider_info() -> dict[str, object]:
    """Return what Airflow shows and needs of this provider: its connection form and its configuration."""
    return {
        "package-name": "airflow-provider-tavus",
        "name": "Tavus",
        "description": "Deletes Tavus replicas: by hand, on a schedule, under a retention policy.",
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
                        "password": "the x-api-key of your account",
                    },
                },
                "conn-fields": {
                    "timeout": {
                        "label": "Timeout (seconds)",
                        "description": "For one exchange with Tavus, all in all: above 0, up to 600. "
                        "30 if left empty.",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 600},
                    },
                    "concurrency": {
                        "label": "Concurrency",
                        "description": "The most requests under way at once: 1 to 64. 8 if left empty.",
                        "schema": {"type": ["integer", "null"], "minimum": 1, "maximum": 64},
                    },
                    "requests_per_second": {
                        "label": "Requests per second",
                        "description": "The most that one task sends in a second: above 0, up to 1000. "
                        "No limit if left empty.",
                        "schema": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1000},
                    },
                },
            }
        ],
        "notifications": ["tavus_provider.notifications.tavus.TavusNotifier"],
        "extra-links": [
            "tavus_provider.links.tavus.TavusPageLink",
            "tavus_provider.links.tavus.ReplicaLibraryLink",
        ],
        "config": {
            "tavus": {
                "description": "What only the deployment may decide about Tavus.",
                "options": {
                    "allowed_origins": {
                        "description": "Base URLs to which the API key may be sent, separated by commas.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://tavusapi.com,http://127.0.0.1:8600",
                        "default": "https://tavusapi.com",
                    },
                    "proxy": {
                        "description": "URL of the proxy to Tavus; proxy variables are not read.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "http://proxy.example:3128",
                        "default": "",
                    },
                    "ca_bundle": {
                        "description": "File with the certificates to trust, in place of the usual ones.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/etc/ssl/company.pem",
                        "default": "",
                    },
                    "policy": {
                        "description": "YAML or JSON file with the policy that the prune and purge DAGs "
                        "use instead of their own; any Airflow object storage path.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/retention.yaml",
                        "default": "",
                    },
                    "ledger": {
                        "description": "Folder in which intents and outcomes of deletes are recorded; any "
                        "Airflow object storage path. A folder under AIRFLOW_HOME if empty. Plans too large "
                        "for an XCom lie there too, in _plans.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "s3://aws_default@my-bucket/tavus-ledger",
                        "default": "",
                    },
                    "portal": {
                        "description": "Where Tavus shows your replicas, for a link on each task; if empty, "
                        "https://platform.tavus.io/dev/replicas; the newer portal is in the example.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "https://maker.tavus.io/dev/faces",
                        "default": "",
                    },
                    "approvers": {
                        "description": "User ids that may approve a permanent delete, separated by commas; "
                        "empty for all whom Airflow lets answer.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "alice,bob",
                        "default": "",
                    },
                },
            }
        },
    }
