-- What of a clip had been seen when it was released: a list of core.releases. A release of before covers what could be
-- seen of the clip itself then.

ALTER TABLE acquisition ADD COLUMN released_for TEXT NOT NULL DEFAULT '[]';

UPDATE acquisition SET released_for = CASE
    WHEN verdict <> 'intact' AND size_bytes = 0 THEN json_array(verdict, 'empty')
    WHEN verdict <> 'intact' THEN json_array(verdict)
    WHEN size_bytes = 0 THEN json_array('empty')
    ELSE '[]' END
WHERE released_by IS NOT NULL;
