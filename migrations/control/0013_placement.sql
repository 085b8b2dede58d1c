-- The operator makes clusters, and says on which one the topics of a namespace are made from then on.
GRANT SELECT, INSERT ON control.cluster TO sluice_control_system;
CREATE POLICY of_system ON control.cluster TO sluice_control_system USING (true) WITH CHECK (true);

ALTER TABLE control.namespace ADD COLUMN cluster_uid bigint NOT NULL DEFAULT 0 REFERENCES control.cluster;
