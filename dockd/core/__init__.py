"""Pure rules of the station: tables, formats, proofs. No clock, no file, no network (design: layers)."""
