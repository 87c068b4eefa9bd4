"""`sft config-schema`: what a config may hold, for editors and for people."""

import argparse
import sys

SUMMARY = "print the JSON schema of a config, by which an editor checks and explains it; --markdown: the same to read"
EXAMPLES = """\
sft config-schema > schema.json    # and in a config: # yaml-language-server: $schema=schema.json
sft config-schema --markdown       # every field with its type, its default and what it affects"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option."""
    parser.add_argument("--markdown", action="store_true", help="the reference of all fields instead")


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from launcher.exit_codes import DONE

    if options.markdown:
        from sft.config_reference import config_reference

        sys.stdout.write(config_reference())
    else:
        from sft.config_schema import schema_text

        sys.stdout.write(schema_text())
    return DONE
