"""The entry point: finds the command, runs it, turns errors into one sentence and an exit status."""

import sys

import click

from penstock import __version__
from penstock.cli.lazy import Entry, LazyGroup
from penstock.core.errors import PenstockError


class Penstock(LazyGroup):
    """All commands, in the order in which people meet them."""

    table: dict[str, Entry] = {  # noqa: RUF012 - a constant
        "up": ("up", "Run everything on this machine: control, gateways, shipper and engines."),
        "gateway": ("processes", "Run the gateway: the OpenAI API."),
        "grpc": ("processes", "Run the gRPC server: the Open Inference Protocol."),
        "control": ("processes", "Run the control plane: API, console and loops."),
        "engine": ("processes", "Run one embedded engine for the model in DIRECTORY."),
        "ship": ("processes", "Run the shipper, which carries the journal to control."),
        "examiner": ("processes", "Run the examiner, which evaluates versions."),
        "models": ("models", "The registry: models, their versions and files."),
        "datasets": ("datasets", "Data that versions were trained and measured on."),
        "feedback": ("feedback", "What people said of answers, for the next training."),
        "readiness": ("readiness", "How ready a version is, by the ML Test Score, and what is missing."),
        "promote": ("deployments", "Let an environment run a version."),
        "rollback": ("deployments", "Go back to an earlier state of a model."),
        "pipeline": ("pipeline", "Take a version from its files to production, through every gate."),
        "canary": ("canary", "Try a version out on a share of the traffic."),
        "history": ("deployments", "Every revision of what environments ran of a model."),
        "gates": ("gates", "What an environment asks of a version, and whether it is given."),
        "suites": ("suites", "Questions that versions are evaluated by."),
        "approve": ("gates", "Give one's word for a version in an environment."),
        "signers": ("signers", "Who vouches for versions by signature."),
        "webhooks": ("webhooks", "Who is told of what happens to models."),
        "blocks": ("blocks", "Versions that may not be deployed in an environment."),
        "experiments": ("experiments", "A/B tests and the like: registered, run, read."),
        "evaluators": ("evaluators", "How answers are scored after the fact, and how much has been."),
        "references": ("evaluators", "Questions whose right answers are known."),
        "tenants": ("tenants", "Who uses the gateway: priority, share and limits of each."),
        "keys": ("keys", "Keys of the gateway and of the control API."),
        "principals": ("principals", "People and programs: what they may do, and whose word counts."),
        "routes": ("routes", "Model names that clients ask for, and where each leads."),
        "policies": ("policies", "What is kept of requests, and which content rules apply."),
        "probe": ("probe", "Run a few requests through a version's weights again: attention, perplexity."),
        "subjects": ("subjects", "Whom content was kept of, and how it is forgotten."),
        "drift": ("drift", "Whether models are asked, and answer, as they did."),
        "alerts": ("alerts", "What fires, and what did: of Prometheus and of the records."),
        "apply": ("apply", "Bring what is there to what documents say."),
        "journal": ("journal", "The exchange log of the gateways on this machine."),
        "query": ("query", "Ask the records of all requests with SQL."),
        "requests": ("requests", "Which requests there were, by whatever is known of them."),
        "explain": ("explain", "What became of one request, and why."),
        "folder": ("folder", "Whether a data folder is the one that it was, or a copy."),
        "doctor": ("doctor", "Look for what is wrong with the installation on this machine."),
    }
    hidden_table: dict[str, Entry] = {  # noqa: RUF012 - a constant
        "supervise": ("processes", "Keep the processes of a data folder running; started by `up`."),
    }


@click.group(cls=Penstock, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="penstock")
def cli() -> None:
    """Takes a trained language model to production and keeps it there."""


def main() -> None:
    """Runs the command that was typed. Exit status: 0 done, 1 refused or failed with a sentence on stderr, 2 wrong usage."""
    try:
        status = cli.main(prog_name="penstock", standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except PenstockError as error:
        click.echo(f"Error: {error.message}", err=True)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        click.echo(f"Error: {where}{error.strerror or error}.", err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
