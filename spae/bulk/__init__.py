"""A whole data set of images to words: cut into parts, each written whole or not at all.

>>> from spae.bulk import job, run
>>> run.run(job.open_job("train-*.tar", format="parquet"), "words")
"""
