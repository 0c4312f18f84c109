-- What `citycell run` needs of a ClickHouse server, and no more. An administrator runs this, then
--   CREATE USER citycell IDENTIFIED WITH sha256_password BY '...' DEFAULT ROLE citycell_writer
-- The database is the one of --database. `citycell store --writer-grants` takes this file too.
CREATE ROLE IF NOT EXISTS citycell_writer;
GRANT CREATE DATABASE ON city.* TO citycell_writer;
-- Views too.
GRANT CREATE TABLE ON city.* TO citycell_writer;
-- Only a server whose table_engines_require_grant is set asks for these two.
GRANT TABLE ENGINE ON MergeTree TO citycell_writer;
GRANT TABLE ENGINE ON ReplacingMergeTree TO citycell_writer;
-- A view is replaced: the new one is made under a name of ClickHouse's own and takes the old one's
-- place, and the old one goes.
GRANT DROP VIEW ON city.* TO citycell_writer;
GRANT DROP TABLE ON city._tmp_replace_* TO citycell_writer;
GRANT INSERT ON city.* TO citycell_writer;
-- Marks and versions are read at the start, and a view is made only of what its maker may read.
GRANT SELECT ON city.* TO citycell_writer;
