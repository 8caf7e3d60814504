"""Certificates of an authority of our own."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
END = datetime.datetime(2090, 1, 1, tzinfo=datetime.UTC)


def _new() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


@dataclass
class Authority:
    """It signs for `127.0.0.1` and for clients."""

    name: str = "authority"
    key: Any = field(default_factory=_new)

    def __post_init__(self) -> None:
        self.cert = self._sign(_named(self.name), self.key.public_key(), x509.BasicConstraints(ca=True, path_length=None))

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.cert.public_bytes(Encoding.PEM)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A new certificate for `name`, server and client; -> (certificate, key) as PEM."""
        key = _new()
        cert = self._sign(_named(name), key.public_key(), x509.BasicConstraints(ca=False, path_length=None))
        return cert.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def files(self, directory: Path, name: str) -> tuple[Path, Path]:
        """The same in files `NAME.pem` and `NAME.key`."""
        cert, key = directory / f"{name}.pem", directory / f"{name}.key"
        for path, data in zip((cert, key), self.issue(name), strict=True):
            path.write_bytes(data)
        return cert, key

    def _sign(self, subject: x509.Name, public: Any, constraints: x509.BasicConstraints) -> x509.Certificate:
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        local = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_named(self.name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(START)
            .not_valid_after(END)
            .add_extension(constraints, critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if not constraints.ca:
            builder = builder.add_extension(local, critical=False).add_extension(usage, critical=False)
        return builder.sign(self.key, hashes.SHA256())
