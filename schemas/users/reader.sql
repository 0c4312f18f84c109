-- What those who look need of a ClickHouse server. An administrator runs this, then
--   CREATE USER reader IDENTIFIED WITH sha256_password BY '...' DEFAULT ROLE citycell_reader
-- Views run with the rights of whoever asks, so the tables beneath them are granted too.
CREATE ROLE IF NOT EXISTS citycell_reader;
GRANT SELECT ON city.* TO citycell_reader;
-- Nothing but reading, and no query without an end: zero would lift a limit.
CREATE SETTINGS PROFILE IF NOT EXISTS citycell_reader SETTINGS
    readonly = 2 CONST,
    max_execution_time = 60 MIN 1 MAX 60,
    max_memory_usage = 4000000000 MIN 1 MAX 4000000000,
    max_threads = 2 MIN 1 MAX 2
    TO citycell_reader;
