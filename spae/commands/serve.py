"""`spae serve`: the HTTP service."""

import argparse
from typing import Any

from spae.commands.options import add_bundle, add_command, positive
from spae.errors import InputError


def add(commands: Any) -> None:
    serve = add_command(
        commands,
        "serve",
        "the HTTP service: images to words and back, and chat with images for text-only models",
        "spae serve --port 8000 --upstream http://localhost:8080/v1",
        _serve,
    )
    serve.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (127.0.0.1)")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="0: any that is free (8000)")
    serve.add_argument(
        "--upstream", metavar="URL", help="an OpenAI-compatible server, with /v1 (none: the model of --lm)"
    )
    serve.add_argument("--upstream-model", metavar="NAME", help="its model (what each request names)")
    serve.add_argument(
        "--served-model-name",
        action="append",
        default=[],
        metavar="NAME",
        help="requests may call the language model so, too; may be repeated (its own name and the bundle's)",
    )
    serve.add_argument(
        "--lm", default="default", metavar="NAME_OR_PATH", help="the embedded language model (SmolLM2-135M)"
    )
    serve.add_argument(
        "--preamble",
        metavar="TEXT",
        help="what the model is told of pictures in words; '' for nothing (some lines)",
    )
    serve.add_argument("--api-keys", metavar="FILE", help="keys that may call, one a line; or sha256:DIGEST")
    serve.add_argument("--no-auth", action="store_true", help="no keys, though others can reach the address")
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="images may be fetched from there; may be repeated (nowhere)",
    )
    serve.add_argument(
        "--cors-origin",
        action="append",
        default=[],
        metavar="URL",
        help="web pages of this origin may call; may be repeated (none)",
    )
    serve.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds a request may take (60)"
    )
    serve.add_argument(
        "--queue", type=positive, default=80, metavar="N", help="images at once; more get 429 (80)"
    )
    add_bundle(serve)


def _serve(options: argparse.Namespace) -> int:
    try:
        from spae.service.serve import serve
        from spae.service.settings import Settings
    except ModuleNotFoundError as error:
        raise InputError(f"no module {error.name}: the service needs pip install 'spae[serve]'") from error
    serve(
        Settings(
            host=options.host,
            port=options.port,
            bundle=options.bundle,
            upstream=options.upstream,
            upstream_model=options.upstream_model,
            lm=options.lm,
            served_model_names=tuple(options.served_model_name),
            preamble=options.preamble,
            api_keys_file=options.api_keys,
            no_auth=options.no_auth,
            allow_hosts=tuple(options.allow_host),
            queue=options.queue,
            timeout_s=options.timeout,
            cors_origins=tuple(options.cors_origin),
        )
    )
    return 0
