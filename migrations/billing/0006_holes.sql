-- Windows of a source that did not come: `[first_window, end_window)`, apart from each other. What came behind them is
-- counted; before, it was held back, and what was held back is a hole now. A hole is an alarm until its windows come or until
-- it is declared lost; windows that come after that still count and make it smaller.

CREATE TABLE billing.source_hole (
    source text NOT NULL REFERENCES billing.source,
    first_window bigint NOT NULL CHECK (first_window >= 1),
    end_window bigint NOT NULL CHECK (end_window > first_window),
    found_at timestamptz NOT NULL DEFAULT now(),
    lost_at timestamptz,
    PRIMARY KEY (source, first_window)
);
CREATE INDEX source_hole_open ON billing.source_hole (found_at) WHERE lost_at IS NULL;

-- The owner of a table that forces row-level security sees none of its rows.
ALTER TABLE billing.source NO FORCE ROW LEVEL SECURITY;
INSERT INTO billing.source_hole (source, first_window, end_window)
    SELECT source, last_window + 1, highest_window + 1 FROM billing.source WHERE highest_window > last_window;
ALTER TABLE billing.source FORCE ROW LEVEL SECURITY;

DROP INDEX billing.source_stopped;
ALTER TABLE billing.source DROP COLUMN last_window, ADD CHECK (highest_window >= 0);

-- Logs that were another one from one moment on, under the same name: read from their beginnings since then.
CREATE TABLE billing.log_replaced (
    topic text NOT NULL,
    partition integer NOT NULL,
    old_topic_id text NOT NULL,
    new_topic_id text NOT NULL,
    -- How far the old one, or what was lost of it, had been read.
    read_to bigint NOT NULL,
    found_at timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT, INSERT, UPDATE, DELETE ON billing.source_hole TO sluice_billing_system;
GRANT SELECT, INSERT ON billing.log_replaced TO sluice_billing_system;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['source_hole', 'log_replaced'] LOOP
        EXECUTE format('ALTER TABLE billing.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('ALTER TABLE billing.%I FORCE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY of_system ON billing.%I TO sluice_billing_system
                        USING (true) WITH CHECK (true)', name);
    END LOOP;
END $$;
