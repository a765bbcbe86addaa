"""Flags that several commands take."""

import click

PORT = click.IntRange(1, 65535)

data_flag = click.option(
    "--data", metavar="DIR", help="The data folder [default: ./penstock-data].", type=click.Path(file_okay=True)
)
tls_certificate_flag = click.option(
    "--tls-certificate",
    metavar="FILE",
    help="Certificate with its chain (PEM): the gateway speaks TLS [default: plain HTTP].",
)
tls_key_flag = click.option("--tls-key", metavar="FILE", help="The certificate's key (PEM).")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print one JSON document for programs.")
