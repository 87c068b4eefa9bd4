"""From where records lie to records: `sources` is the way in.

locations    a source's path → its files, local or remote
json_files, csv_files, tables    a file → pieces of it
blocks       what is sent to whoever prepares it
sources      the pieces of all files as numbered blocks; blocks → records; the hash of the content
"""
