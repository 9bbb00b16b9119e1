"""What the station keeps on its own disk: durable files, spool, journal, custody mirror."""
