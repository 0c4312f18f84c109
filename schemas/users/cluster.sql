-- What `citycell run --clickhouse-cluster` needs beside writer.sql. An administrator runs both on every
-- server of the cluster. No test here runs a cluster: only that these are good SQL is tested.
GRANT CLUSTER ON *.* TO citycell_writer;
-- How many servers must have a row.
GRANT SELECT ON system.clusters TO citycell_writer;
-- Only a server whose table_engines_require_grant is set asks for these two.
GRANT TABLE ENGINE ON ReplicatedMergeTree TO citycell_writer;
GRANT TABLE ENGINE ON ReplicatedReplacingMergeTree TO citycell_writer;
