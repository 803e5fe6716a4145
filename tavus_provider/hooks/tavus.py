"""TavusHook: an Airflow connection turned into a TavusClient."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Self

from airflow.configuration import conf
from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from tavus_provider.client.api import AccessCheck, Deletion, Ending, TavusClient
from tavus_provider.client.config import (
    DEFAULT_ORIGIN,
    OPTION_NAMES,
    ClientConfig,
    ClientOptions,
    InvalidOptionError,
    check_option,
    parse_extras,
    parse_key,
    parse_origin,
)
from tavus_provider.client.listing import Page
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.get_provider_info import get_provider_info
from tavus_provider.keys import Kind
from tavus_provider.models import Conversation, Item, Persona, Replica, UnreadableRow, Video

ACCESS_MESSAGES: Final = {
    AccessCheck.ACCEPTED: "Tavus accepted the API key.",
    AccessCheck.REJECTED: "Tavus rejected the API key.",
    AccessCheck.RATE_LIMITED: "Tavus is rate limiting this account: try again later.",
    AccessCheck.UNREACHABLE: "Tavus could not be reached. Proxy variables such as HTTPS_PROXY are not read: "
    "an administrator of the deployment can set proxy in section tavus of the configuration.",
    AccessCheck.INVALID_RESPONSE: "The response is not from the Tavus API: check the base URL.",
}

_EXPECTED_VARIABLE: Final = (
    'must be JSON such as {"conn_type": "tavus", "password": "YOUR-API-KEY"}, or a URI such as '
    "tavus://:YOUR-API-KEY@tavusapi.com"
)


class TavusHook(BaseHook):
    """
    Call the Tavus API with the API key and base URL of an Airflow connection.

    The password of the connection is the API key. The host is the base URL, ``https://tavusapi.com`` if it
    is empty, and must be among ``[tavus] allowed_origins``. The extras are those of
    :class:`tavus_provider.client.config.ClientOptions`.

    The methods are those of :class:`tavus_provider.client.api.TavusClient`, which is created on first use
    and raises :class:`~tavus_provider.exceptions.TavusValidationError` for a connection that cannot be used.
    Use the hook as a context manager, or call :meth:`close`, to close its connections.

    :param tavus_conn_id: id of the Airflow connection
    :param concurrency: maximum number of requests at the same time; a smaller one of the connection wins
    :param requests_per_second: maximum request rate; a smaller one of the connection wins
    :param parallel_tasks: number of tasks that share this rate; each uses an equal part
    """

    conn_name_attr = "tavus_conn_id"
    default_conn_name = "tavus_default"
    conn_type = "tavus"
    hook_name = "Tavus"

    def __init__(
        self,
        tavus_conn_id: str = default_conn_name,
        *,
        concurrency: int | None = None,
        requests_per_second: float | None = None,
        parallel_tasks: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.tavus_conn_id = tavus_conn_id
        self.concurrency = concurrency
        self.requests_per_second = requests_per_second
        self.parallel_tasks = parallel_tasks
        self._stop_requested = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the client, if it was created."""
        if client := self.__dict__.pop("client", None):
            client.close()

    def stop(self) -> None:
        """
        See :meth:`TavusClient.stop`. A client that is created afterwards is stopped too.

        Can be called in a signal handler.
        """
        self._stop_requested = True
        if client := self.__dict__.get("client"):
            client.stop()

    def wait(self, seconds: float) -> bool:
        """See :meth:`TavusClient.wait`."""
        return self.client.wait(seconds)

    @cached_property
    def client(self) -> TavusClient:
        """The client for this connection, created on first use."""
        connection = self._read_connection()
        origin = _allowed_origin(connection)
        key = parse_key(connection.password, login=connection.login)
        config = ClientConfig(origin, key, self._options(parse_extras(connection.extra, key=key)))
        mask_secret(config.key)  # Airflow masks the password as stored, perhaps with a newline
        client = TavusClient(
            config,
            proxy=conf.get("tavus", "proxy", fallback="") or None,
            ca_bundle=conf.get("tavus", "ca_bundle", fallback="") or None,
        )
        self.__dict__["client"] = client  # before the check, because a signal may call stop() in between
        if self._stop_requested:
            client.stop()
        return client

    def get_conn(self) -> TavusClient:
        """Return the client."""
        return self.client

    @property
    def origin(self) -> str:
        """Scheme, host and port of the API, such as ``https://tavusapi.com``."""
        return self.client.origin

    @property
    def clock_skew(self) -> float | None:
        """See :attr:`TavusClient.clock_skew`."""
        return self.client.clock_skew

    @property
    def clock_evidence(self) -> str | None:
        """See :attr:`TavusClient.clock_evidence`."""
        return self.client.clock_evidence

    def list_replicas(self, *, while_deleting: bool = False) -> list[Replica | UnreadableRow]:
        """See :meth:`TavusClient.list_replicas`."""
        return self.client.list_replicas(while_deleting=while_deleting)

    def list_personas(
        self, *, keep: Callable[[Persona | UnreadableRow], bool] | None = None
    ) -> list[Persona | UnreadableRow]:
        """See :meth:`TavusClient.list_personas`."""
        return self.client.list_personas(keep=keep)

    def list_conversations(
        self,
        *,
        latest_only: bool = False,
        status: str | None = None,
        keep: Callable[[Conversation | UnreadableRow], bool] | None = None,
        observe: Callable[[Sequence[Conversation | UnreadableRow]], object] = lambda rows: None,
    ) -> list[Conversation | UnreadableRow]:
        """See :meth:`TavusClient.list_conversations`."""
        return self.client.list_conversations(
            latest_only=latest_only, status=status, keep=keep, observe=observe
        )

    def get_conversations_page(
        self, *, status: str | None = None, number: int = 1, limit: int = 1
    ) -> Page[Conversation | UnreadableRow]:
        """See :meth:`TavusClient.get_conversations_page`."""
        return self.client.get_conversations_page(status=status, number=number, limit=limit)

    def list_videos(
        self,
        *,
        latest_only: bool = False,
        keep: Callable[[Video | UnreadableRow], bool] | None = None,
    ) -> list[Video | UnreadableRow]:
        """See :meth:`TavusClient.list_videos`."""
        return self.client.list_videos(latest_only=latest_only, keep=keep)

    def list_items(
        self, kind: Kind, *, keep: Callable[[Item | UnreadableRow], bool] | None = None
    ) -> list[Item | UnreadableRow]:
        """See :meth:`TavusClient.list_items`."""
        return self.client.list_items(kind, keep=keep)

    def get_item(self, key: str) -> Item:
        """See :meth:`TavusClient.get_item`."""
        return self.client.get_item(key)

    def get_replica(self, replica_id: str) -> Replica:
        """See :meth:`TavusClient.get_replica`."""
        return self.client.get_replica(replica_id)

    def delete_replica(
        self, replica_id: str, *, hard: bool = False, before_send: Callable[[], bool] | None = None
    ) -> Deletion:
        """
        See :meth:`TavusClient.delete_replica`.

        It does not ask for legal holds and writes no ledger; the operators do.
        """
        return self.client.delete_replica(replica_id, hard=hard, before_send=before_send)

    def delete_item(
        self, key: str, *, hard: bool = False, before_send: Callable[[], bool] | None = None
    ) -> Deletion:
        """See :meth:`TavusClient.delete_item`, and :meth:`delete_replica`."""
        return self.client.delete_item(key, hard=hard, before_send=before_send)

    def end_conversation(self, conversation_id: str) -> Ending:
        """See :meth:`TavusClient.end_conversation`."""
        return self.client.end_conversation(conversation_id)

    def test_connection(self) -> tuple[bool, str]:
        """
        Send one small request, and return whether it succeeded, and a message for the connection form.

        The message is a fixed text. It never contains the API key, a URL or text of the server.
        """
        try:
            connection = self._read_connection()
        except TavusValidationError:
            return False, "The connection does not exist."
        checks: list[tuple[Callable[[], object], str]] = [
            (
                lambda: _allowed_origin(connection),
                "The base URL is not allowed: an administrator of the deployment can add it to "
                "allowed_origins in section tavus of the configuration.",
            ),
            (
                lambda: parse_key(connection.password),
                "The API key is missing or invalid: enter it in the field API key.",
            ),
            (
                lambda: parse_extras(connection.extra),
                f"The extras are invalid: expected only {', '.join(OPTION_NAMES)}.",
            ),
        ]
        for check, message in checks:
            try:
                check()
            except InvalidOptionError as error:
                return False, f"The extra {error.option} is invalid: expected {error.expected}."
            except TavusValidationError:
                return False, message
        try:
            result = self.client.check_access()
        except TavusValidationError:
            return False, "The proxy or ca_bundle in section tavus of the configuration is invalid."
        finally:
            self.close()
        return result == AccessCheck.ACCEPTED, ACCESS_MESSAGES[result]

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the connection form for Airflow before 3.2. Later versions read ``get_provider_info``."""
        return {name.replace("-", "_"): value for name, value in _form()["ui-field-behaviour"].items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the extras of the form for Airflow before 3.2. Later versions read ``get_provider_info``."""
        from flask_appbuilder.fieldwidgets import (  # type: ignore[import-not-found]  # Airflow replaces it
            BS3TextFieldWidget,
        )
        from wtforms import IntegerField  # type: ignore[import-untyped]  # has no type information

        fields = {}
        for name, row in _form()["conn-fields"].items():
            fields[name] = field = IntegerField(
                label=row["label"], description=row["description"], widget=BS3TextFieldWidget()
            )
            # Airflow puts a class of its own in place of IntegerField, which has no argument for bounds.
            if (param := getattr(field, "param", None)) is not None:
                param.schema.update({key: row["schema"][key] for key in ("minimum", "maximum")})
        return fields

    def _read_connection(self) -> Any:
        variable = f"AIRFLOW_CONN_{str(self.tavus_conn_id).upper()[:80]}"
        text = os.environ.get(variable, "").strip()
        connection, kind = None, ""
        try:
            connection = self.get_connection(self.tavus_conn_id)
        except Exception as error:  # noqa: BLE001  # each secrets backend has its own errors
            kind = type(error).__name__
        # Raised outside the except block: the error may contain the text of the connection.
        if connection is None:
            raise TavusValidationError(
                f"the Airflow connection {ascii(self.tavus_conn_id)[:80]} is not defined or cannot be read "
                f"({kind}): "
                + (
                    f"{variable} is set, but {_EXPECTED_VARIABLE}"
                    if text
                    else f"add it under Admin > Connections, or set {variable}"
                )
            )
        # Airflow reads a bare key as a URI without a type.
        if text and not connection.conn_type and not text.startswith("{") and "://" not in text:
            raise TavusValidationError(f"{variable} {_EXPECTED_VARIABLE}, not the API key alone")
        return connection

    def _options(self, extras: Mapping[str, Any]) -> ClientOptions:
        """Return the options of this hook: the smaller of its argument and of the connection's extra."""
        options = dict(extras)
        arguments = {"concurrency": self.concurrency, "requests_per_second": self.requests_per_second}
        for name, value in arguments.items():
            if value is None:
                continue
            check_option(name, value)
            if name in extras and extras[name] < value:
                self.log.warning(
                    "%s is %s, as the extra of the connection %s says, and not %s as the task asks",
                    name, extras[name], ascii(self.tavus_conn_id)[:80], value,
                )  # fmt: skip
            else:
                options[name] = value
        check_option("parallel_tasks", self.parallel_tasks)
        if rate := options.get("requests_per_second"):
            options["requests_per_second"] = rate / self.parallel_tasks
        return ClientOptions(**options)


def _allowed_origin(connection: Any) -> str:
    allowed = conf.get("tavus", "allowed_origins", fallback=DEFAULT_ORIGIN)
    return parse_origin(connection.host, connection.port, connection.schema, allowed=allowed.split(","))


def _form() -> dict[str, Any]:
    info: Any = get_provider_info()
    form: dict[str, Any] = info["connection-types"][0]
    return form
