-- The moment at which the city is shown: what "now" means to all views.
CREATE OR REPLACE VIEW city_moment{on_cluster} AS
SELECT epoch, committed_at, stale
FROM moments
ORDER BY epoch DESC, committed_at DESC
LIMIT 1
