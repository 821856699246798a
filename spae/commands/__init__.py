"""The commands of `spae`, one noun a file: each adds its parser, and runs what was asked for."""
