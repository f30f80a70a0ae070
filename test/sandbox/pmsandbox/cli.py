"""The command line, the listening sockets and the end of the program."""
import argparse
import asyncio
import logging
import os
import signal
import ssl
import sys

from .errors import PostmarkError
from .server import Sandbox
from .tls import TlsError, certificate
from .webhooks import is_loopback
from .world import World


def _parse(arguments):
    parser = argparse.ArgumentParser(
        prog="postmark_sandbox",
        description="A local Postmark: answers as Postmark does, keeps every mail, sends none.",
        epilog="Control API and mailbox: /_sandbox/ on the same port. See README.md.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    add("--port", type=int, default=0, help="port to listen on (default 0: a free one)")
    add("--port-file", metavar="FILE", help="write the port to FILE once it listens")
    add("--control-port-file", metavar="FILE",
        help="listen on a second, plain-HTTP loopback port too and write it to FILE (for use with TLS)")
    add("--allow-remote", action="store_true", help="allow a --host that is not a loopback address")
    add("--tls-cert", metavar="FILE", help="PEM certificate chain; the port then speaks TLS")
    add("--tls-key", metavar="FILE", help="PEM key of --tls-cert")
    add("--tls-name", action="append", metavar="NAME",
        help="speak TLS with a certificate for this host name or address (repeatable), made at the start")
    add("--tls-folder", metavar="FOLDER",
        help="where --tls-name keeps its authority; clients trust FOLDER/ca.pem")
    add("--control-host", action="append", metavar="NAME",
        help="the control API and the mailbox answer to this host name, too (repeatable)")
    add("--token", action="append", metavar="TOKEN",
        help="accept this server token besides POSTMARK_API_TEST (repeatable; default sandbox-token)")
    add("--sender", action="append", metavar="PATTERN",
        help="confirmed sender: an address or a domain, * allowed (repeatable; default *.example, "
             "*.test and example.com)")
    add("--webhook", action="append", default=[], metavar="URL",
        help="post every event to URL, as a webhook does (repeatable)")
    add("--webhook-header", action="append", default=[], metavar="'NAME: VALUE'", type=_header,
        help="a header of what is posted to the --webhook URLs (repeatable)")
    add("--webhook-retries", metavar="SECONDS,...", type=_intervals,
        help="when an event that was not answered with 200 is posted again (default: as Postmark "
             "does, 60,300,600,600,600,900)")
    add("--state-file", metavar="FILE", help="keep accepted messages in FILE over a restart")
    add("--quiet", action="store_true", help="print nothing")
    options = parser.parse_args(arguments)
    if bool(options.tls_cert) != bool(options.tls_key):
        parser.error("--tls-cert and --tls-key go together")
    if bool(options.tls_name) != bool(options.tls_folder):
        parser.error("--tls-name and --tls-folder go together")
    if options.tls_name and options.tls_cert:
        parser.error("--tls-name makes what --tls-cert names: give one of them")
    if not options.allow_remote and not is_loopback(options.host):
        parser.error(f"{options.host} is not a loopback address; --allow-remote allows it")
    return options


def _header(text):
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError("a header is 'NAME: VALUE'")
    return {"Name": name.strip(), "Value": value.strip()}


def _intervals(text):
    try:
        return [float(part) for part in text.split(",") if part]
    except ValueError:
        raise argparse.ArgumentTypeError("intervals are numbers of seconds with commas between") from None


def _tls_context(options):
    if options.tls_name:
        options.tls_cert, options.tls_key = certificate(options.tls_folder, options.tls_name)
    if not options.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(options.tls_cert, options.tls_key)
    return context


def _write_atomically(path, text):
    """A reader sees the whole file or none."""
    scratch = f"{path}.{os.getpid()}"
    with open(scratch, "w", encoding="ascii") as file:
        file.write(text)
    os.replace(scratch, path)


async def _serve(options):
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    world = World(options.token, options.sender, options.state_file, options.webhook_retries,
                  options.webhook, options.webhook_header, options.allow_remote)
    factory = Sandbox(world, options.allow_remote, options.control_host).http_server()
    context = _tls_context(options)
    listener = await loop.create_server(factory, options.host, options.port, ssl=context, backlog=1024)
    port = listener.sockets[0].getsockname()[1]
    if options.control_port_file:
        plain = await loop.create_server(factory, "127.0.0.1", 0)
        _write_atomically(options.control_port_file, f"{plain.sockets[0].getsockname()[1]}\n")
    if options.port_file:
        _write_atomically(options.port_file, f"{port}\n")
    if not options.quiet:
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"listening on {'https' if context else 'http'}://{host}:{port}", flush=True)
    await stop.wait()


def main(arguments=None):
    """Run until SIGTERM or SIGINT; return the exit status."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    # Clients that a rule treats badly leave half-open TLS streams: no news here.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_serve(options))
    except (OSError, PostmarkError, TlsError) as error:
        print(f"postmark_sandbox: {error}", file=sys.stderr)
        return 1
    # Open connections and requests under way have nothing to finish.
    sys.stdout.flush()
    os._exit(0)
