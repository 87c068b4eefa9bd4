"""`sft config-schema`: what a config may hold, for editors and for people."""

import argparse
import sys

SUMMARY = "print the JSON schema with which an editor checks and explains a config; --markdown: a reference to read"
EXAMPLES = """\
sft config-schema > schema.json    # and in a config: # yaml-language-server: $schema=schema.json
sft config-schema --markdown       # every field with its type, its default and what it affects"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument("--markdown", action="store_true", help="print a reference of all fields instead")


def run(options: argparse.Namespace) -> int:
    """Print the schema or the reference."""
    from launcher.exit_codes import DONE

    if options.markdown:
        from sft.config_reference import config_reference

        sys.stdout.write(config_reference())
    else:
        from sft.config_schema import schema_text

        sys.stdout.write(schema_text())
    return DONE
