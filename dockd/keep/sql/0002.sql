-- What a camera's profile says of its files. `of` is the clip that a sidecar belongs to, as its newest listing has it;
-- the two are erased together. `profile` is empty, and its version 0, where a folder was read. `named` is what the
-- file's name says, as JSON; NULL where it says nothing.

ALTER TABLE acquisition ADD COLUMN role TEXT NOT NULL DEFAULT 'clip' CHECK (role IN ('clip', 'sidecar'));
ALTER TABLE acquisition ADD COLUMN of TEXT REFERENCES acquisition (acquisition);
ALTER TABLE acquisition ADD COLUMN profile TEXT NOT NULL DEFAULT '';
ALTER TABLE acquisition ADD COLUMN profile_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE acquisition ADD COLUMN named TEXT;

CREATE INDEX acquisition_of ON acquisition (of, acquisition) WHERE of IS NOT NULL;
CREATE INDEX acquisition_sidecars ON acquisition (docking, acquisition) WHERE role = 'sidecar';
