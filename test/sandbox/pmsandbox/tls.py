"""An authority of the sandbox's own and a certificate by it, made with the openssl program.

The authority stays in its folder from run to run, so that a client trusts it
once; the certificate is made anew at every start.
"""
import contextlib
import ipaddress
import os
import pathlib
import subprocess

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class TlsError(Exception):
    """What openssl said."""


def certificate(folder, names):
    """(certificate file, key file) for these host names and addresses, by the authority `ca.pem` of the folder."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _private_files():
        if not (folder / "ca.pem").exists():
            _openssl("req", "-x509", *_KEY, "-days", "3650", "-subj", "/CN=postmark sandbox authority",
                     "-addext", "keyUsage=critical,keyCertSign", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
            (folder / "ca.pem").chmod(0o644)
        alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in names)
        (folder / "cert.ext").write_text(f"basicConstraints=CA:FALSE\nsubjectAltName={alternatives}\n")
        _openssl("req", *_KEY, "-subj", "/CN=postmark sandbox", "-keyout", folder / "cert.key", "-out", folder / "cert.csr")
        _openssl("x509", "-req", "-in", folder / "cert.csr", "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key",
                 "-CAcreateserial", "-days", "365", "-extfile", folder / "cert.ext", "-out", folder / "cert.pem")
    return folder / "cert.pem", folder / "cert.key"


@contextlib.contextmanager
def _private_files():
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _is_address(name):
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _openssl(*arguments):
    try:
        subprocess.run(("openssl", *arguments), check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise TlsError("the openssl program is needed to make a certificate") from None
    except subprocess.CalledProcessError as error:
        raise TlsError(f"openssl {arguments[0]}: {error.stderr.strip()}") from None
