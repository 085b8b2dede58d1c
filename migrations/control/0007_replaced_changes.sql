-- What was replaced before the column was there.
UPDATE control.outbox o SET replaced_time = now()
    WHERE o.published_offset IS NOT NULL AND o.replaced_time IS NULL
    AND EXISTS (SELECT 1 FROM control.outbox later WHERE later.aggregate_uid = o.aggregate_uid AND later.id > o.id
                AND later.published_offset IS NOT NULL);
