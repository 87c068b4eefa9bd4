"""From files to records; `sources` is the entry point.

locations    a source's path → its files, local or remote
folders, split_names, data_set_metadata, layout    which of the files there to read
contents     what a file is, by its first bytes
json_files, csv_files, tables    a file → pieces of it, with json_values, arrow_messages, parquet_footer, row_sizes
blocks       what is sent to the process that prepares it
sources      the pieces of all files as numbered blocks; blocks → records; the hash of the content
"""
