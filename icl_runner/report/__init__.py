"""From logs to tables, intervals, charts, pictures and a page: `spae-icl report`."""
