"""``aim-icl serve`` and ``aim-icl serve-key``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from aim_sdk.cli import options


def serve(
    context: typer.Context,
    banks: Annotated[Path, typer.Option(help="The folder of the banks, each in a folder of its own name.")] = Path(
        "banks"
    ),
    backend: options.Backend = "pocket",
    engine: Annotated[
        str | None, typer.Option(help="vllm: a vLLM server at --url answers, and --model is what it runs.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The address of the engine's server, or of a load balancer.")] = None,
    model: options.Model = None,
    projector: options.Projector = None,
    template: options.Template = None,
    selector: Annotated[
        str | None, typer.Option(help="Chooses demonstrations, unless a request names another selector.")
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on. Any but this machine's own needs --keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    keys: Annotated[Path | None, typer.Option(help="The file of API keys; see `aim-icl serve-key`.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Requests that are answered together.")] = 16,
    queue: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are refused.")] = 256,
    published: Annotated[
        list[str] | None,
        typer.Option(help="NAME=ADDRESS of a bank that `aim-icl bank publish` wrote (again for several)."),
    ] = None,
    refresh: Annotated[float, typer.Option(min=0.1, help="Seconds until published banks are looked at again.")] = 60,
    image_host: Annotated[
        list[str] | None, typer.Option(help="A host that images may be downloaded from; by default none.")
    ] = None,
    host_name: Annotated[
        list[str] | None,
        typer.Option(help="Another host name that browsers may use, if only this machine is listened to."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="The longest answer.")] = 2048,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not write a line for each request.")] = False,
    device: options.Device = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = False,
    option: options.Option = None,
) -> None:
    """Serve few-shot over OpenAI's chat API, with named banks and a page to look at them.

    Clients use the address with `/v1` as their base URL, and `BACKEND` or `BACKEND:BANK` as the model.
    """
    from aim_sdk.backend.registry import BACKENDS
    from aim_sdk.config import PromptFormat
    from aim_sdk.errors import InputError
    from aim_sdk.pipeline import AIMPipeline
    from aim_sdk.selection.registry import DEFAULT_SELECTOR, SELECTORS
    from aim_sdk.serving.keys import Keys, check_keys
    from aim_sdk.serving.settings import Limits, ServeSettings
    from aim_sdk.support.dependencies import imported

    for package in ("fastapi_offline", "uvicorn", "prometheus_client", "python_multipart"):
        imported(package, extra="serve")
    from aim_sdk.serving.run import log_to_stderr, run

    own = options.of_backend(option, trust_remote_code)
    if engine is not None or url is not None:
        if "base_url" in own:
            raise InputError("serve: --url and --option base_url= mean the same; leave the option out.")
        backend, own = _engine(context, engine, url), own | {"base_url": url}
    BACKENDS.require(backend)
    chooses = DEFAULT_SELECTOR if selector is None else selector
    SELECTORS.require(chooses)
    settings = ServeSettings(
        banks=banks,
        host=host,
        port=port,
        batch=batch,
        queue=queue,
        image_hosts=frozenset(image_host or ()),
        hosts=frozenset(host_name or ()),
        published=dict(map(_named, published or ())),
        refresh=refresh,
        limits=Limits(max_tokens=max_tokens),
    )
    held = Keys.read(keys)
    check_keys(settings, held)  # before the model is loaded
    pipe = AIMPipeline.from_pretrained(
        backend,
        model=model,
        projector=projector,
        device=device,
        dtype=dtype,
        selector=chooses,
        prompt_format=None if template is None else PromptFormat.plain(template),
        **own,
    )
    log_to_stderr(logging.WARNING if quiet else logging.INFO)
    run(pipe, settings, held)


def _engine(context: typer.Context, engine: str | None, url: str | None) -> str:
    """The backend of an engine elsewhere."""
    from aim_sdk.errors import InputError, unknown

    if engine is None or url is None:
        raise InputError(
            f"serve: {'--url without --engine vllm' if engine is None else '--engine needs --url ADDRESS'}."
        )
    if engine != "vllm":
        raise InputError(f"--engine: {unknown('engine', engine, ['vllm'])}")
    given = context.get_parameter_source("backend")
    if given is not None and given.name != "DEFAULT" and context.params["backend"] != engine:
        raise InputError("serve: --backend and --engine are both given; leave --backend out.")
    return engine


def _named(given: str) -> tuple[str, str]:
    from aim_sdk.errors import InputError

    name, sign, address = given.partition("=")
    if not (name and sign and address):
        raise InputError(f"--published {given}: expected NAME=ADDRESS.")
    return name, address


def serve_key(
    name: Annotated[str, typer.Argument(help="Who holds it.")],
    file: Annotated[Path, typer.Option(help="The file of keys; created if missing. Only a hash is written.")] = Path(
        "keys.yaml"
    ),
    write: Annotated[bool, typer.Option("--write", help="It may change banks, too.")] = False,
    bank: Annotated[list[str] | None, typer.Option(help="It sees only this bank (again for several).")] = None,
    per_minute: Annotated[int | None, typer.Option(min=1, help="Requests a minute.")] = None,
    at_once: Annotated[int | None, typer.Option(min=1, help="Requests that are not answered yet.")] = None,
) -> None:
    """Make an API key for `aim-icl serve`. It is printed once, and kept nowhere."""
    from aim_sdk.serving.keys import add_key

    key = add_key(
        file,
        name,
        may=("ask", "write") if write else ("ask",),
        banks=tuple(bank) if bank else None,
        per_minute=per_minute,
        at_once=at_once,
    )
    typer.echo(key)
